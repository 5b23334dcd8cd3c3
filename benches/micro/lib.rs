//! Nothing: the benchmarks are in `benches`, and cargo wants a library or a program.
