//go:build race

package syncloop

const raceDetector = true
