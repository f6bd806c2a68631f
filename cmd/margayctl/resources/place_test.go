package resources

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// Where the store is follows from flags, variables and a file, in this order.
func TestPlace(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours := file("ours.yaml", `{etcd: {endpoints: ["https://[fd00::1]:2379"], caFile: ca, certFile: crt, keyFile: key, prefix: /x}}`)
	folder := file("folder.yaml", `{folder: {dir: /srv/objects}}`)
	calico := file("calico.cfg", `{apiVersion: projectcalico.org/v3, kind: CalicoAPIConfig, metadata: {}, spec: {datastoreType: etcdv3, etcdEndpoints: "https://10.0.0.1:2379,https://[fd00::1]:2379", etcdCACertFile: ca, etcdCertFile: crt, etcdKeyFile: key}}`)
	kube := file("kube.cfg", `{apiVersion: projectcalico.org/v3, kind: CalicoAPIConfig, spec: {datastoreType: kubernetes, kubeconfig: /root/.kube/config}}`)
	secret := file("secret.cfg", `{apiVersion: projectcalico.org/v3, kind: CalicoAPIConfig, spec: {etcdEndpoints: "https://10.0.0.1:2379", etcdUsername: me, etcdPassword: secret}}`)
	wrong := file("wrong.yaml", `{etdc: {}}`)
	tests := map[string]struct {
		flags string
		env   map[string]string
		want  string // the configuration as JSON, or a part of the error
	}{
		"nothing":                             {"", nil, `{"etcd":{}}`},
		"a folder by flag":                    {"--folder a", map[string]string{endpointsVariable: "http://b:1"}, `{"folder":{"dir":"a"}}`},
		"an etcd by flag":                     {"--etcd-endpoints http://a:1,http://[fd00::1]:1", map[string]string{folderVariable: "b"}, `{"etcd":{"endpoints":["http://a:1","http://[fd00::1]:1"]}}`},
		"a folder by variable":                {"", map[string]string{folderVariable: "a", configVariable: ours}, `{"folder":{"dir":"a"}}`},
		"an etcd by calicoctl's variables":    {"", map[string]string{typeVariable: "etcdv3", endpointsVariable: "https://a:1,https://b:1", caVariable: "ca", certVariable: "crt", keyVariable: "key"}, `{"etcd":{"endpoints":["https://a:1","https://b:1"],"caFile":"ca","certFile":"crt","keyFile":"key"}}`},
		"flags before variables":              {"--etcd-ca-cert x", map[string]string{endpointsVariable: "https://a:1", caVariable: "ca"}, `{"etcd":{"endpoints":["https://a:1"],"caFile":"x"}}`},
		"a file":                              {"-c " + ours, map[string]string{folderVariable: "b"}, `{"etcd":{"endpoints":["https://[fd00::1]:2379"],"prefix":"/x","caFile":"ca","certFile":"crt","keyFile":"key"}}`},
		"a file by variable, and a key":       {"--etcd-key other", map[string]string{configVariable: ours}, `{"etcd":{"endpoints":["https://[fd00::1]:2379"],"prefix":"/x","caFile":"ca","certFile":"crt","keyFile":"other"}}`},
		"endpoints hide a file's":             {"--etcd-endpoints http://a:1 -c " + ours, nil, `{"etcd":{"endpoints":["http://a:1"]}}`},
		"a file with a folder":                {"-c " + folder, nil, `{"folder":{"dir":"/srv/objects"}}`},
		"calicoctl's file":                    {"-c " + calico, nil, `{"etcd":{"endpoints":["https://10.0.0.1:2379","https://[fd00::1]:2379"],"caFile":"ca","certFile":"crt","keyFile":"key"}}`},
		"calicoctl's file, of a cluster":      {"-c " + kube, nil, "want etcdv3"},
		"calicoctl's variables, of a cluster": {"", map[string]string{typeVariable: "kubernetes"}, "want etcdv3"},
		"calicoctl's file, with a secret":     {"-c " + secret, nil, "a password's with --etcd-password-file"},
		"calicoctl's variables, a secret":     {"", map[string]string{endpointsVariable: "https://a:1", "ETCD_PASSWORD": "secret"}, "say it by ETCD_PASSWORD_FILE"},
		"a certificate as a variable":         {"--etcd-endpoints https://a:1", map[string]string{"ETCD_CERT": "-----BEGIN"}, "say it by ETCD_CERT_FILE"},
		"a secret, and a folder":              {"--folder a", map[string]string{"ETCD_PASSWORD": "secret"}, `{"folder":{"dir":"a"}}`},
		"a file that is wrong":                {"-c " + wrong, nil, "wrong.yaml"},
		"a file that is not there":            {"-c " + dir + "/none", nil, "no such file"},
		"two places":                          {"--folder a --etcd-endpoints http://b:1", nil, "want one of them"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var p place
			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			p.flags(flags)
			if err := flags.Parse(strings.Fields(tt.flags)); err != nil {
				t.Fatal(err)
			}
			cfg, err := p.resolve(func(name string) string { return tt.env[name] })
			got, _ := json.Marshal(cfg)
			if err != nil {
				if strings.HasPrefix(tt.want, "{") || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("failed with %v, want %s", err, tt.want)
				}
				return
			}
			if string(got) != tt.want {
				t.Errorf("the store is at %s, want %s", got, tt.want)
			}
		})
	}
}
