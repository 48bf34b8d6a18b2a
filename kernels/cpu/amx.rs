//! The tiles of AMX: whether this process may use them, and their configuration.
//!
//! The compiler's AMX intrinsics are not stable, so the tiles are driven by inline assembly. The
//! operating system must grant the tile state to the process once.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Bits of EDX of CPUID leaf 7.
const BF16: u32 = 1 << 22;
const TILE: u32 = 1 << 24;
const INT8: u32 = 1 << 25;

/// Whether the machine has int8 tile products and the process may use them.
pub(crate) fn has_int8() -> bool {
    usable() & INT8 != 0
}

/// Whether the machine has bfloat16 tile products and the process may use them.
pub(crate) fn has_bf16() -> bool {
    usable() & BF16 != 0
}

/// Those of the bits above that the process may use.
fn usable() -> u32 {
    static USABLE: OnceLock<u32> = OnceLock::new();
    *USABLE.get_or_init(|| {
        let offered = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 };
        if offered & TILE != 0 && request_tile_state() { offered & (BF16 | INT8) } else { 0 }
    })
}

/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
#[cfg(target_os = "linux")]
fn request_tile_state() -> bool {
    let mut result: i64 = 158;
    // SAFETY: the call changes nothing but the process's permission for tile data.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") 0x1023,
            in("rsi") 18,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn request_tile_state() -> bool {
    false
}

/// The shapes of the eight tiles, as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles at their full 16 rows of 64 bytes.
static FULL_TILES: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Eight full tiles (16 rows of 64 bytes) on this thread, released when dropped.
pub(crate) struct Tiles(PhantomData<*const ()>);

impl Tiles {
    /// Configures the tiles of the calling thread.
    ///
    /// # Safety
    /// [`has_int8`] or [`has_bf16`] holds.
    pub(crate) unsafe fn configure() -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const FULL_TILES, options(nostack, readonly));
        }
        Self(PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: tiles were configured on this thread, so the instruction is there.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
