// Something to compile: what the precompiled headers are made with.
