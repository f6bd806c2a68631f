// Package classifier decides what an ordered list of rules says of a packet,
// in a time that hardly grows with the list.
//
//	[]Rule ──Compile──► image ──Load──► Program ──Match──► Verdict
package classifier
