//! GGUF and safetensors: validated reading over memory maps, streaming writing, names, resumable jobs.
