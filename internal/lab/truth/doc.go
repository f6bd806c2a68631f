// Package truth holds what policies must come to, as data: cases of Kubernetes
// objects, step by step, and for every step who then reaches whom by which
// protocol, port and family.
//
//	Case ──► Step ──► State ──► Apply, of whom is tested (its manifests, put in force)
//	           └────► Want ───► compared with what Ask found out, with real packets
//
// The cases are those of Cyclonus, a tester of network policies, judged by its
// own simulated cluster; see the source that cyclonus.json names, and the program
// in cyclonus/ that makes the file anew:
//
//	cd internal/lab/truth/cyclonus && go run . > ../cyclonus.json
//
// Nothing of what is tested has a say in them.
package truth
