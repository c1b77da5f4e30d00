//! What the governor makes of some buckets, on virtual time.
//!
//! `cargo run --release -p longshore-throttle --example governor`

#![expect(clippy::print_stdout, reason = "that is what it is for")]

include!("../tests/support/model.rs");

fn main() {
    println!(
        "{:<32} {:>9} {:>16} {:>8}",
        "bucket", "possible", "achieved", "refused"
    );
    for scene in scenes() {
        let figures = simulate(&scene);
        let span = scene.until - scene.from;
        println!(
            "{:<32} {:>7.3}/s {:>7.3}/s {:>5.1}% {:>7.2}%",
            scene.name,
            figures.possible / span,
            figures.passed / span,
            figures.achieved() * 100.0,
            figures.refused_part() * 100.0,
        );
    }
}
