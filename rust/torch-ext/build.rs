//! Compiles the C++ shim in `cpp/` against the headers of the libtorch that `torch-sys` links.
use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys reports the folder of libtorch's libraries");
    let include = PathBuf::from(lib).parent().expect("libtorch's libraries are in its folder `lib`").join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        // As libtorch itself is compiled: some of its classes have further members in debug builds.
        .define("NDEBUG", None)
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .files([
            "cpp/autocast.cpp",
            "cpp/count.cpp",
            "cpp/device.cpp",
            "cpp/foreach.cpp",
            "cpp/graph.cpp",
            "cpp/memory.cpp",
            "cpp/nccl.cpp",
            "cpp/profile.cpp",
            "cpp/reducer.cpp",
            "cpp/rng.cpp",
            "cpp/storage.cpp",
            "cpp/world.cpp",
        ])
        .compile("hlrp_torch");
}
