//go:build !amd64

package flow

// Elsewhere nothing is asked for ahead of time.

func fetchBucket(*bucket) {}

func fetchEntry(*entry) {}
