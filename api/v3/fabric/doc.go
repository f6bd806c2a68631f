// Package fabric is what the network of workloads is made of, as resources of
// group projectcalico.org/v3 say it: the machines and their addresses, and the
// pools that workloads get theirs from. Package v3 has the objects whose specs
// these are; each spec judges itself, given the path at which it stands.
//
// +kubebuilder:object:generate=true
package fabric
