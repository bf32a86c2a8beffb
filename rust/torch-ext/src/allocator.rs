//! An allocator that reports exhausted memory and ends the program with an exit code, where Rust would abort.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::Write,
    sync::{Mutex, PoisonError},
};

unsafe extern "C" {
    /// Ends the process without running anything else.
    fn _exit(code: i32) -> !;
    /// Writes to a file descriptor.
    fn write(descriptor: i32, bytes: *const u8, count: usize) -> isize;
}

/// Text about the run, for the message.
static SCENE: Mutex<String> = Mutex::new(String::new());

/// The system's allocator for `#[global_allocator]`; the program ends when an allocation fails.
pub struct Allocator {
    exit_code: u8,
}

impl Allocator {
    /// The program will end with `exit_code`.
    pub const fn new(exit_code: u8) -> Self {
        Self { exit_code }
    }

    /// Text about the run for the message, such as its step and last checkpoint.
    pub fn set_scene(text: String) {
        *SCENE.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    fn end(&self, num_bytes: usize) -> ! {
        // Nothing may be allocated here.
        let mut buffer = [0u8; 2048];
        let mut rest = &mut buffer[..];
        let scene = SCENE.try_lock();
        let scene = scene.as_deref().map_or("", String::as_str);
        let hint = "lower data.loader.batch_size, data.loader.memory_budget_mb or data.loader.num_workers";
        // A text that is too long is truncated.
        let _ = write!(rest, "error: out of memory: {num_bytes} bytes cannot be allocated{scene}\nhint: {hint}\n");
        let unused = rest.len();
        let text = &buffer[..buffer.len() - unused];
        // SAFETY: a buffer with its length; then the process ends.
        unsafe {
            write(2, text.as_ptr(), text.len());
            _exit(self.exit_code.into())
        }
    }

    /// The pointer, unless it is null.
    fn present(&self, pointer: *mut u8, num_bytes: usize) -> *mut u8 {
        if pointer.is_null() { self.end(num_bytes) } else { pointer }
    }
}

// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        self.present(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        self.present(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        self.present(unsafe { System.realloc(pointer, layout, size) }, size)
    }
}
