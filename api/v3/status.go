package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Status is what became of an object.
type Status struct {
	// Conditions say whether it is in force, where, and why not.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Conditions is as Object says.
func (o *NetworkPolicy) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *GlobalNetworkPolicy) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *StagedNetworkPolicy) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *StagedGlobalNetworkPolicy) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *StagedKubernetesNetworkPolicy) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *Tier) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *NetworkSet) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *GlobalNetworkSet) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *Profile) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *HostEndpoint) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *WorkloadEndpoint) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *Node) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *IPPool) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *FelixConfiguration) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *ClusterInformation) Conditions() *[]metav1.Condition { return &o.Status.Conditions }

// Conditions is as Object says.
func (o *PendingChange) Conditions() *[]metav1.Condition { return &o.Status.Conditions }
