//! The data-location registry.
