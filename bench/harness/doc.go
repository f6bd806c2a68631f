// Package harness runs scenarios that measure this project against its peers,
// and prints what they found, one JSON object a line or a table.
//
// What makes figures of a shared machine worth having: both sides of a
// comparison take turns in short windows of the same run; a window in which the
// thread waited for a CPU is thrown away and repeated; results are medians with
// quartiles, and say how disturbed the windows were that they rest on.
package harness
