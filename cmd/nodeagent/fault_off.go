//go:build !faults

package main

// faults are for tests only.
func faults() func(string) { return nil }
