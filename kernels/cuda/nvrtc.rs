//! Compiling kernels at run time.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::{result, sys};

use crate::source::HEADERS;
use crate::{GpuError, Source};

/// Whether NVRTC is installed.
pub fn nvrtc_is_present() -> bool {
    // SAFETY: looks for the library only.
    unsafe { sys::is_culib_present() }
}

/// NVRTC's version, as part of a cache key.
pub(crate) fn version() -> (i32, i32) {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both are written.
    let _ = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    (major, minor)
}

/// Options of every compilation.
pub(crate) fn options(arch: &str, defines: &[String]) -> Vec<String> {
    let mut options = vec![
        format!("--gpu-architecture=sm_{arch}"),
        "--std=c++17".to_owned(),
        "-default-device".to_owned(),
    ];
    // NVRTC's own headers call their template parameters T: common.cuh defines it after them.
    let renamed = |define: &String| match define.strip_prefix("-DT=") {
        Some(element) => format!("-DELEMENT_TYPE={element}"),
        None => define.clone(),
    };
    options.extend(defines.iter().map(renamed));
    options
}

/// Compiles a source for an architecture (`90a`) with definitions (`-DNAME=VALUE`): a cubin.
///
/// # Errors
/// [`GpuError::Compile`] with NVRTC's log.
pub fn compile(source: &Source, arch: &str, defines: &[String]) -> Result<Vec<u8>, GpuError> {
    let fail =
        |log: String| GpuError::Compile { source_name: source.name, arch: arch.to_owned(), log };
    let program = Program::new(source).map_err(|error| fail(error.to_string()))?;
    // SAFETY: the program exists.
    let compiled = unsafe { result::compile_program(program.0, &options(arch, defines)) };
    compiled.map_err(|_| fail(program.log()))?;
    program.cubin().map_err(|error| fail(error.to_string()))
}

struct Program(sys::nvrtcProgram);

impl Program {
    fn new(source: &Source) -> Result<Self, result::NvrtcError> {
        let text = |s: &str| CString::new(s).unwrap_or_default();
        let (code, name) = (text(source.text), text(source.name));
        let names: Vec<CString> = HEADERS.iter().map(|(name, _)| text(name)).collect();
        let headers: Vec<CString> = HEADERS.iter().map(|(_, body)| text(body)).collect();
        let pointers = |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).collect::<Vec<_>>();
        let mut program = std::ptr::null_mut();
        // SAFETY: all strings outlive the call, which copies them.
        unsafe {
            sys::nvrtcCreateProgram(
                &mut program,
                code.as_ptr(),
                name.as_ptr(),
                HEADERS.len() as i32,
                pointers(&headers).as_ptr(),
                pointers(&names).as_ptr(),
            )
            .result()?;
        }
        Ok(Self(program))
    }

    fn log(&self) -> String {
        // SAFETY: the program exists.
        let log: Vec<c_char> = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
        // SAFETY: NVRTC ends its log with a zero.
        let is_empty = log.is_empty();
        if is_empty {
            return "no log".to_owned();
        }
        unsafe { CStr::from_ptr(log.as_ptr()) }.to_string_lossy().trim().to_owned()
    }

    fn cubin(&self) -> Result<Vec<u8>, result::NvrtcError> {
        let mut size = 0;
        // SAFETY: the size is written.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &mut size) }.result()?;
        let mut cubin = vec![0u8; size];
        // SAFETY: as large as NVRTC said.
        unsafe { sys::nvrtcGetCUBIN(self.0, cubin.as_mut_ptr().cast()) }.result()?;
        Ok(cubin)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and destroyed here alone.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}
