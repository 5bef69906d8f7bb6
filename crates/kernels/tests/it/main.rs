//! The kernels from outside: against plain twins, against candle, and against themselves on every instruction set,
//! with every number of threads and in every cut of the batch.

mod attention;
mod formats;
mod linear;
#[cfg(not(target_arch = "aarch64"))]
mod oracle;
mod pool;
mod program;
mod rows;
mod support;
