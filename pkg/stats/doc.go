// Package stats is what the node and its pods use: CPU, memory, processes,
// pressure, network and disk, as /stats/summary and the metrics tell it.
package stats
