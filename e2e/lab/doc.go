// Package lab builds the bed that the end-to-end tests, the benchmark and
// `make run` stand on: a private containerd with its own folders, network
// namespace and images, a registry, a raw CRI client, and the agent under
// test as a child process. A control plane stands in a network of its own,
// which labs may join. Nothing of it touches the machine's own runtime, and a
// torn down lab leaves nothing behind, which Leaks checks.
//
// Needs root and `hack/install test`.
package lab
