//! The command as its users run it: arguments and standard input in; exit status, standard output and error out.

mod bad_input;
mod eval;
mod good_runs;
mod run;
mod summarize;
