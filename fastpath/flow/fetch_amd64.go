package flow

// fetchBucket and fetchEntry ask for memory that is written soon, and wait for nothing.
// A load would not do: each locked operation waits for all loads before it.

//go:noescape
func fetchBucket(b *bucket)

//go:noescape
func fetchEntry(e *entry)
