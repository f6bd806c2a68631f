//go:build linux && race

package hostnettest

const raceDetector = true
