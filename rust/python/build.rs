//! Compiles the C++ in `cpp/` against the headers of Python and of the libtorch that `torch-sys` links, and links libtorch's Python part.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-env-changed=PYO3_PYTHON");
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys reports the folder of libtorch's libraries");
    let include = PathBuf::from(&lib).parent().expect("libtorch's libraries are in its folder `lib`").join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        // As libtorch itself is compiled: some of its classes have further members in debug builds.
        .define("NDEBUG", None)
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .include(python_headers())
        .file("cpp/tensors.cpp")
        .compile("hlrp_py");
    println!("cargo:rustc-link-lib=torch_python");
}

/// The folder with `Python.h` of the interpreter that PyO3 builds for.
fn python_headers() -> PathBuf {
    let python = env::var("PYO3_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let code = "import sysconfig; print(sysconfig.get_paths()['include'], end='')";
    let output = Command::new(&python).args(["-c", code]).output().expect("PYO3_PYTHON is a Python interpreter");
    let headers = PathBuf::from(String::from_utf8(output.stdout).expect("a path in UTF-8"));
    assert!(headers.join("Python.h").is_file(), "no Python.h for {python} in {}", headers.display());
    headers
}
