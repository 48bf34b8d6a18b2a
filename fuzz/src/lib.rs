//! What both targets share, most of it with `passes/tests/damaged`, which runs in every check.

#[path = "../../passes/tests/rules/case.rs"]
#[allow(dead_code)]
mod case;
#[path = "../../passes/tests/damaged/examine.rs"]
pub mod examine;
#[path = "../../passes/tests/damaged/mutate/mod.rs"]
pub mod mutate;
#[path = "../../passes/tests/damaged/seeds.rs"]
pub mod seeds;
#[path = "../../passes/tests/rules/weights.rs"]
mod weights;

use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message;
use tempfile::TempDir;

/// Holds the file that external data of seeds lies in.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    seeds::write_weights(folder.path());
    folder
});

/// Examines one file.
pub fn run(data: &[u8]) {
    examine::examine(Bytes::copy_from_slice(data), FOLDER.path());
}

/// Writes the seeds into the folder that the variable `SEEDS` names, if it is set: libFuzzer reads
/// its corpus after this.
///
/// # Panics
/// If the folder can't be written.
pub fn write_seeds() {
    let Some(folder) = std::env::var_os("SEEDS") else { return };
    std::fs::create_dir_all(&folder).expect("a folder");
    for (name, model) in seeds::seeds() {
        let path = Path::new(&folder).join(name);
        std::fs::write(path, model.encode_to_vec()).expect("a writable folder");
    }
}
