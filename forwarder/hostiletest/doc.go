// Package hostiletest holds the tests of what policy survives: objects at every
// limit, images that are broken, pods that change while they talk, floods. All of
// the way is there, in one process, but for the kernel:
//
//	manifests ─► control/guard ─► control/dataplane ═ socket ═ forwarder/session ─► forwarder/plane ─► ports in memory
//
// It has no code of its own. A few tests grow with flags:
//
//	go test ./forwarder/hostiletest -run TestSetOfAMillion -members 1000000
package hostiletest
