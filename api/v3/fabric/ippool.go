package fabric

// Encapsulation says when packets between nodes are put into others.
//
// +kubebuilder:validation:Enum=Never;Always;CrossSubnet
type Encapsulation string

// When packets are put into others.
const (
	EncapNever       Encapsulation = "Never"
	EncapAlways      Encapsulation = "Always"
	EncapCrossSubnet Encapsulation = "CrossSubnet" // where nodes are in different networks
)

// PoolUse is what addresses of a pool are for.
//
// +kubebuilder:validation:Enum=Workload;Tunnel;LoadBalancer
type PoolUse string

// What addresses of a pool are for.
const (
	UseWorkload     PoolUse = "Workload"     // endpoints of workloads
	UseTunnel       PoolUse = "Tunnel"       // the nodes' own ends of tunnels
	UseLoadBalancer PoolUse = "LoadBalancer" // services; alone
)

// AssignmentMode says who gets an address of a pool.
//
// +kubebuilder:validation:Enum=Automatic;Manual
type AssignmentMode string

// Who gets an address of a pool.
const (
	AssignAutomatic AssignmentMode = "Automatic" // whoever asks for any
	AssignManual    AssignmentMode = "Manual"    // who asks for the pool, or the address
)

// IPPoolSpec is a range that addresses are given from, and what holds for them.
//
// +kubebuilder:validation:XValidation:rule="self.cidr == oldSelf.cidr",message="the CIDR of a pool stays as it is: make another pool"
type IPPoolSpec struct {
	// CIDR is the range, with no bits beyond its length.
	CIDR string `json:"cidr"`

	// VXLANMode says when packets between nodes go in VXLAN; not beside IPIPMode.
	// +optional
	VXLANMode Encapsulation `json:"vxlanMode,omitempty"`

	// IPIPMode says when packets between nodes go in IPIP; for IPv4 alone.
	// +optional
	IPIPMode Encapsulation `json:"ipipMode,omitempty"`

	// NATOutgoing has what leaves for addresses of no pool leave with the node's.
	// +optional
	NATOutgoing bool `json:"natOutgoing,omitempty"`

	// Disabled gives no more addresses; those that are given stay.
	// +optional
	Disabled bool `json:"disabled,omitempty"`

	// DisableBGPExport tells peers of no route within.
	// +optional
	DisableBGPExport bool `json:"disableBGPExport,omitempty"`

	// BlockSize is the length of the prefixes that nodes take from the range: 20 to
	// 32, for IPv6 116 to 128; 26 and 122 where it is left out.
	// +optional
	BlockSize int `json:"blockSize,omitempty"`

	// NodeSelector picks the nodes that may take of it.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NodeSelector string `json:"nodeSelector,omitempty"`

	// NamespaceSelector picks the namespaces whose workloads may; empty: all.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	NamespaceSelector string `json:"namespaceSelector,omitempty"`

	// AllowedUses are what the addresses are for; none: Workload and Tunnel.
	// +optional
	// +kubebuilder:validation:MaxItems=3
	// +listType=set
	AllowedUses []PoolUse `json:"allowedUses,omitempty"`

	// AssignmentMode says who gets an address; left out: Automatic.
	// +optional
	AssignmentMode *AssignmentMode `json:"assignmentMode,omitempty"`
}
