package v3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Object is a resource of the group.
//
// +kubebuilder:object:generate=false
type Object interface {
	runtime.Object
	metav1.Object

	// Default fills in what a writer may leave out and Calico then takes for
	// granted; by says how it finds the directions of a policy.
	Default(by TypesBy)

	// Validate gives every fault of the object, each with the field and the mend:
	// none is nil, and at most MaxFaults and one that says that there are more. It
	// expects what Default fills in.
	Validate() field.ErrorList

	// Conditions is where its status says what became of it.
	Conditions() *[]metav1.Condition
}
