//! Integration tests of the crate, one module per topic.

mod artifact;
mod evidence;
mod gate_report;
mod gate_run;
mod gates;
mod inputs;
mod perturb;
mod response;
mod routing;
mod scripted;
mod stamp;
mod suite;
mod teacher_figures;
mod trace;
mod unseen;
mod verdict;
