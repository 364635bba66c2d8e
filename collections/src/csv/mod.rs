//! CSV files cut into blocks that are read in parallel, exactly, although quoted fields hold newlines.

mod records;
mod scan;
mod split;

#[cfg(test)]
mod tests;
