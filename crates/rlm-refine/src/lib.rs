//! Teacher to student: recipes, post-training quantisation, synthetic checkpoints.
