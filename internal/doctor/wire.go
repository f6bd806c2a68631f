//go:build linux

package doctor

import (
	dataplanev1 "margay.dev/margay/api/dataplane/v1"
)

// ToWire is findings as Inspect.Diagnose answers them.
func ToWire(findings []Finding) *dataplanev1.Diagnosis {
	out := &dataplanev1.Diagnosis{}
	for _, f := range findings {
		out.Findings = append(out.Findings, &dataplanev1.Diagnosis_Finding{
			Check: f.Check, Subject: f.Subject, Found: f.Found, Advice: f.Advice,
			Severity: dataplanev1.Diagnosis_Finding_Severity(f.Severity),
		})
	}
	return out
}

// FromWire reads what a forwarder answered. A severity this build does not know
// is worse than those it does.
func FromWire(d *dataplanev1.Diagnosis) []Finding {
	var out []Finding
	for _, f := range d.GetFindings() {
		out = append(out, Finding{
			Check: f.GetCheck(), Subject: f.GetSubject(), Found: f.GetFound(), Advice: f.GetAdvice(),
			Severity: Severity(min(max(f.GetSeverity(), 0), dataplanev1.Diagnosis_Finding_Severity(Fault))),
		})
	}
	return out
}
