package resources

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/connect"
	"margay.dev/margay/datastore/etcd"
	"margay.dev/margay/datastore/file"
)

// The variables that say where the store is. The first two are ours, the others
// calicoctl's, and mean the same.
const (
	configVariable    = "MARGAY_CONFIG"
	folderVariable    = "MARGAY_FOLDER"
	typeVariable      = "DATASTORE_TYPE"
	endpointsVariable = "ETCD_ENDPOINTS"
	caVariable        = "ETCD_CA_CERT_FILE"
	certVariable      = "ETCD_CERT_FILE"
	keyVariable       = "ETCD_KEY_FILE"
	userVariable      = "ETCD_USERNAME"
	passwordVariable  = "ETCD_PASSWORD_FILE"
)

// elsewhere are variables of calicoctl's for which we have others: secrets stand in
// files, so that neither an environment nor a list of processes shows them.
var elsewhere = map[string]string{
	"ETCD_PASSWORD": passwordVariable, "ETCD_CA_CERT": caVariable, "ETCD_CERT": certVariable, "ETCD_KEY": keyVariable,
	"ETCD_DISCOVERY_SRV": endpointsVariable,
}

// defaultConfig is the file that is read where it is there and no other is named.
const defaultConfig = "/etc/margay/margayctl.yaml"

// place is what flags say of where the store is.
type place struct {
	config, folder  string
	endpoints       []string
	ca, cert, key   string
	user, passwords string
}

func (p *place) flags(f *pflag.FlagSet) {
	f.StringVarP(&p.config, "config", "c", "", "file that says where the store is; "+configVariable+" sets it too (default "+defaultConfig+" if there is one)")
	f.StringVar(&p.folder, "folder", "", "the store is a folder of manifests; "+folderVariable+" sets it too")
	f.StringSliceVar(&p.endpoints, "etcd-endpoints", nil, "the store is an etcd there, as https://10.0.0.1:2379 or unix:///run/margay/etcd.sock; "+endpointsVariable+" sets it too")
	f.StringVar(&p.ca, "etcd-ca-cert", "", "certificates that etcd's must be signed by; "+caVariable+" sets it too")
	f.StringVar(&p.cert, "etcd-cert", "", "our certificate for etcd; "+certVariable+" sets it too")
	f.StringVar(&p.key, "etcd-key", "", "its key; "+keyVariable+" sets it too")
	f.StringVar(&p.user, "etcd-username", "", "our name for etcd; "+userVariable+" sets it too")
	f.StringVar(&p.passwords, "etcd-password-file", "", "file with its password; "+passwordVariable+" sets it too")
}

// open opens the store. Flags come before variables, these before the file that is
// there without being named; what says which store hides what the later ones say.
func (p *place) open(env func(string) string) (datastore.Store, error) {
	cfg, err := p.resolve(env)
	if err != nil {
		return nil, err
	}
	return connect.Open(cfg)
}

func (p *place) resolve(env func(string) string) (connect.Config, error) {
	if p.folder != "" && len(p.endpoints) > 0 {
		return connect.Config{}, errors.New("--folder and --etcd-endpoints are given, want one of them: objects are in one place")
	}
	flags := *p
	if flags.folder == "" && len(flags.endpoints) == 0 && flags.config == "" {
		if kind := env(typeVariable); kind != "" && kind != "etcdv3" {
			return connect.Config{}, fmt.Errorf("%s is %q, want etcdv3: Kubernetes' objects are seen by kubectl", typeVariable, kind)
		}
		flags.folder = env(folderVariable)
		if list := env(endpointsVariable); list != "" && flags.folder == "" {
			flags.endpoints = strings.Split(list, ",")
		}
	}
	if flags.folder != "" {
		return connect.Config{Folder: &file.Config{Dir: flags.folder}}, nil
	}
	cfg, err := p.file(env)
	if err != nil {
		return connect.Config{}, err
	}
	if cfg.Folder != nil && len(flags.endpoints) == 0 {
		return cfg, nil
	}
	for _, v := range slices.Sorted(maps.Keys(elsewhere)) {
		if env(v) != "" {
			return connect.Config{}, fmt.Errorf("%s is set, which is not read: say it by %s, and unset this one", v, elsewhere[v])
		}
	}
	e := etcd.Config{}
	if cfg.Etcd != nil && len(flags.endpoints) == 0 {
		e = *cfg.Etcd
	}
	if len(flags.endpoints) > 0 {
		e.Endpoints = flags.endpoints
	}
	for _, f := range []struct {
		into           *string
		flag, variable string
	}{
		{&e.CAFile, p.ca, caVariable}, {&e.CertFile, p.cert, certVariable}, {&e.KeyFile, p.key, keyVariable},
		{&e.Username, p.user, userVariable}, {&e.PasswordFile, p.passwords, passwordVariable},
	} {
		if f.flag == "" {
			f.flag = env(f.variable)
		}
		if f.flag != "" {
			*f.into = f.flag
		}
	}
	return connect.Config{Etcd: &e}, nil
}

// file reads the configuration file: that which is named, or that which is there.
func (p *place) file(env func(string) string) (cfg connect.Config, err error) {
	name := p.config
	if name == "" {
		name = env(configVariable)
	}
	named := name != ""
	if !named {
		name = defaultConfig
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return cfg, nil
	}
	if err != nil {
		return cfg, fmt.Errorf("read configuration: %w", err)
	}
	var kind struct {
		Kind string `json:"kind"`
	}
	if yaml.Unmarshal(text, &kind) == nil && kind.Kind == "CalicoAPIConfig" {
		return calicoFile(name, text)
	}
	if err := yaml.UnmarshalStrict(text, &cfg); err != nil {
		return cfg, fmt.Errorf("read configuration %s: %w: want etcd: {endpoints: [...]} or folder: {dir: ...}", name, err)
	}
	return cfg, nil
}

// calicoFile reads what calicoctl has in its file.
func calicoFile(name string, text []byte) (connect.Config, error) {
	var calico struct {
		Spec struct {
			DatastoreType  string `json:"datastoreType"`
			EtcdEndpoints  string `json:"etcdEndpoints"`
			EtcdCACertFile string `json:"etcdCACertFile"`
			EtcdCertFile   string `json:"etcdCertFile"`
			EtcdKeyFile    string `json:"etcdKeyFile"`
			EtcdUsername   string `json:"etcdUsername"`

			EtcdPassword     string `json:"etcdPassword"`
			EtcdCACert       string `json:"etcdCACert"`
			EtcdCert         string `json:"etcdCert"`
			EtcdKey          string `json:"etcdKey"`
			EtcdDiscoverySRV string `json:"etcdDiscoverySrv"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &calico); err != nil {
		return connect.Config{}, fmt.Errorf("read configuration %s: %w", name, err)
	}
	s := calico.Spec
	if s.DatastoreType != "" && s.DatastoreType != "etcdv3" || s.EtcdEndpoints == "" {
		return connect.Config{}, fmt.Errorf("read configuration %s: its datastoreType is %q and etcdEndpoints %q, want etcdv3 and where it is: Kubernetes' objects are seen by kubectl",
			name, s.DatastoreType, s.EtcdEndpoints)
	}
	if s.EtcdPassword+s.EtcdCACert+s.EtcdCert+s.EtcdKey+s.EtcdDiscoverySRV != "" {
		return connect.Config{}, fmt.Errorf("read configuration %s: etcdPassword, etcdCACert, etcdCert, etcdKey and etcdDiscoverySrv are not read: name files and endpoints instead, a password's with --etcd-password-file or %s",
			name, passwordVariable)
	}
	return connect.Config{Etcd: &etcd.Config{
		Endpoints: strings.Split(s.EtcdEndpoints, ","), CAFile: s.EtcdCACertFile,
		CertFile: s.EtcdCertFile, KeyFile: s.EtcdKeyFile, Username: s.EtcdUsername,
	}}, nil
}
