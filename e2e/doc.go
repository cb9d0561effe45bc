// Package e2e runs the agent against the real thing: containerd, CNI plugins,
// cgroups, a registry. Its tests assert on what the world sees: CRI, cgroups,
// mounts, logs and bytes.
package e2e
