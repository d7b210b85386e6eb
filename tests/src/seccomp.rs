//! What is done to a command before it runs: taking io_uring away, as container runtimes do, and giving
//! back signals that who started the tests has ignored. The one home of `unsafe` here.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// BPF: load a word of the system call's data.
const LOAD: u16 = 0x20;
/// BPF: skip `jt` or `jf` instructions, by equality.
const JUMP_IF_EQUAL: u16 = 0x15;
/// BPF: end with a verdict.
const RETURN: u16 = 0x06;
/// io_uring_setup; io_uring_enter and io_uring_register follow it.
const IO_URING_SETUP: u32 = 425;

/// Makes hangups end the command as they end one on a terminal, also where the tests were started with
/// `nohup`.
pub fn hearing_hangups(command: &mut Command) {
    // SAFETY: the closure makes one system call and does not allocate, as is asked of code between
    // fork and exec.
    unsafe {
        command.pre_exec(|| match libc::signal(libc::SIGHUP, libc::SIG_DFL) {
            libc::SIG_ERR => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

/// Makes every io_uring call of the command fail with EPERM.
pub fn without_io_uring(command: &mut Command) {
    without_calls(command, [IO_URING_SETUP, IO_URING_SETUP + 1, IO_URING_SETUP + 2]);
}

/// Makes io_uring_enter fail, and nothing else: rings can be made, and do nothing.
pub fn without_io_uring_enter(command: &mut Command) {
    without_calls(command, [IO_URING_SETUP + 1; 3]);
}

fn without_calls(command: &mut Command, [first, second, third]: [u32; 3]) {
    // SAFETY: the closure makes two system calls on data it owns and does not allocate, as is
    // asked of code between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
            let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
            let mut filter = [
                step(LOAD, 0, 0, 0),
                step(JUMP_IF_EQUAL, 3, 0, first),
                step(JUMP_IF_EQUAL, 2, 0, second),
                step(JUMP_IF_EQUAL, 1, 0, third),
                step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
                step(RETURN, 0, 0, refuse),
            ];
            let program =
                libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            let done = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
                    == 0;
            if done { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
}
