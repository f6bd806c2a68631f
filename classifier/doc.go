// Package classifier decides what an ordered list of rules says of a packet,
// in a time that hardly grows with the list.
//
//	[]Rule ──Compile──► image ──Load──► Program ──Match──► Verdict
//
// The list is compiled off the packet path into decision trees over the key of
// a packet. The image is flat and has a checksum; Load verifies it, so that the
// walkers need no bounds checks. docs/CLASSIFIER.md has its layout.
package classifier
