//! The static runner that this program carries to instances.

use std::sync::LazyLock;

use md5::{Digest as _, Md5};

/// The executable file of `longshore-run`, for Linux on the architecture of this program.
pub static CONTENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/longshore-run"));

/// The MD5 of [`CONTENT`] in lower-case hexadecimal, as `md5sum` prints it.
pub fn md5_hex() -> &'static str {
    static HEX: LazyLock<String> = LazyLock::new(|| {
        let bytes = Md5::digest(CONTENT);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    });
    &HEX
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use longshore_runner_api::{command, report};

    use super::*;

    /// Whether an ELF file for a 64-bit little-endian machine needs a dynamic linker.
    fn asks_for_an_interpreter(file: &[u8]) -> bool {
        const INTERPRETER: usize = 3;
        let number = |at: usize, bytes: usize| {
            let bytes = file[at..at + bytes].iter().rev();
            bytes.fold(0usize, |n, &byte| n << 8 | usize::from(byte))
        };
        assert_eq!(&file[..6], b"\x7fELF\x02\x01");
        let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        (0..count).any(|i| number(table + i * size, 4) == INTERPRETER)
    }

    #[test]
    fn the_embedded_runner_is_small_static_and_runs() {
        assert!(CONTENT.len() <= 4 << 20, "{} bytes", CONTENT.len());
        assert!(!asks_for_an_interpreter(CONTENT));
        let own = fs::read("/proc/self/exe").unwrap();
        assert!(asks_for_an_interpreter(&own), "the check can fail");

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runner");
        let report = command::report(path.to_str().unwrap(), &command::ReportOptions::default());
        // The shell writes the file, so that no other test can fork while we have it open and
        // make it "busy".
        let mut shell = Command::new("sh")
            .args([
                "-c",
                &format!("cat > \"$FILE\" && chmod +x \"$FILE\" && {report}"),
            ])
            .env("FILE", &path)
            .env(command::DIRECTORY_VARIABLE, directory.path().join("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(CONTENT).unwrap();
        let output = shell.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(report::parse(&output.stdout).unwrap().containers.is_empty());
    }

    #[test]
    fn the_digest_is_that_of_md5sum() {
        let mut md5sum = Command::new("md5sum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        md5sum.stdin.take().unwrap().write_all(CONTENT).unwrap();
        let output = md5sum.wait_with_output().unwrap();
        assert!(output.stdout.starts_with(md5_hex().as_bytes()));
    }
}
