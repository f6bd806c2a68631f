// Package felix is the settings of a FelixConfiguration: every field that Calico's
// has, so that its manifests are read strictly, whether it means something to
// Margay or not. Where a field is left out, the next configuration in precedence
// holds, or the built-in value.
//
// What stands in parentheses is Calico's built-in value. Words of a choice may be
// written in any case. Durations are Go's, as 90s; where 0 turns something off,
// the comment says so.
//
// +kubebuilder:object:generate=true
package felix
