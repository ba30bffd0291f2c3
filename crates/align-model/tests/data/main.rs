//! Data files of every format, alone and mixed, in memory and streamed.

mod files;
mod formats;
mod hh_rlhf;
mod mixtures;
mod order;
mod sources;
