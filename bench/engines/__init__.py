"""The stream engines that `bench.detection` compares, all around the same domain code."""
