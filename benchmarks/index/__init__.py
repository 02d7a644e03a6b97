"""Index quality and speed: tfmm's indexes, bare sgemm, hnswlib, faiss and usearch."""
