//! What the fuzzing targets do with their input: one module each, whose head says how it reads it
//! and what must hold whatever it says. `tools/fuzz.sh` builds and runs them (`make fuzz`), and so
//! does `cargo fuzz run`; `seeds.py` makes inputs of the recorded sessions.

pub mod address;
pub mod hostile;
pub mod lamb;
pub mod maps;
pub mod memory;
pub mod script;
pub mod wire;
