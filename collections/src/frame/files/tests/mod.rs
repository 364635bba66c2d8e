mod changes;
mod placing;
mod server;
mod stores;
