package v3

import (
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate is as Object says.
func (n *Node) Validate() field.ErrorList {
	f := &faults{}
	f.meta(&n.ObjectMeta, false, validation.IsDNS1123Subdomain)
	f.add(n.Spec.Validate(field.NewPath("spec"))...)
	f.add(n.Status.Validate(field.NewPath("status"))...)
	return f.all()
}

// Validate is as Object says.
func (p *IPPool) Validate() field.ErrorList {
	f := &faults{}
	f.meta(&p.ObjectMeta, false, validation.IsDNS1123Subdomain)
	f.add(p.Spec.Validate(field.NewPath("spec"))...)
	return f.all()
}

// NodePrefix stands before a node's name in the name of the FelixConfiguration
// that is for it alone.
const NodePrefix = "node."

// Validate is as Object says.
func (c *FelixConfiguration) Validate() field.ErrorList {
	f, spec := &faults{}, field.NewPath("spec")
	f.meta(&c.ObjectMeta, false, validation.IsDNS1123Subdomain)
	f.selector(spec.Child("nodeSelector"), c.Spec.NodeSelector)
	if c.Spec.NodeSelector != "" && (c.Name == Default || strings.HasPrefix(c.Name, NodePrefix)) {
		f.forbidden(spec.Child("nodeSelector"), "the name says already which nodes are meant: take it out, or choose another name")
	}
	f.add(c.Spec.Validate(spec)...)
	return f.all()
}

// Validate is as Object says.
func (c *ClusterInformation) Validate() field.ErrorList {
	f := &faults{}
	f.meta(&c.ObjectMeta, false, validation.IsDNS1123Subdomain)
	if c.Name != "" && c.Name != Default {
		f.invalid(field.NewPath("metadata", "name"), c.Name, "want default: there is one of the kind")
	}
	return f.all()
}

// Validate is as Object says.
func (c *PendingChange) Validate() field.ErrorList {
	f, spec := &faults{}, field.NewPath("spec")
	f.meta(&c.ObjectMeta, false, validation.IsDNS1123Subdomain)
	if w := c.Spec.Within.Duration; w < time.Second || w > 24*time.Hour {
		f.invalid(spec.Child("within"), w.String(), "want a second to a day")
	}
	for i, text := range c.Spec.Before {
		if _, err := DecodeJSON([]byte(text)); err != nil {
			f.invalid(spec.Child("before").Index(i), text, err.Error())
		}
	}
	for i, o := range c.Spec.Created {
		p := spec.Child("created").Index(i)
		if _, ok := KindNamed(o.Kind); !ok {
			f.invalid(p.Child("kind"), o.Kind, "want a kind of the group")
		}
		if o.Name == "" {
			f.required(p.Child("name"), "want the object's name")
		}
	}
	return f.all()
}
