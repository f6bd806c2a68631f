// Package etcd keeps objects in an etcd cluster, as JSON, one to a key:
//
//	PREFIX/v3/KIND/NAMESPACE/NAME    an object; NAMESPACE is - for kinds without
//	PREFIX/store                     which store this is: a random name from its first object on
//
// A resource version is the revision of etcd that wrote the object.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// askTime is how long it may take to learn why there is no connection.
const askTime = 100 * time.Millisecond

// noNamespace stands where a key has none.
const noNamespace = "-"

// Store keeps objects in an etcd.
type Store struct {
	client  *clientv3.Client
	cfg     Config
	objects string // before each object's key
	name    string // the key of the store's name

	life context.Context // until Close
	end  context.CancelFunc
}

// Open makes a Store. It does not wait for an etcd to answer, but for one with users:
// there it asks who we are, and fails as any request does. It fails for a
// configuration that Validate has something against.
func Open(cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open etcd: %w", err)
	}
	cfg = cfg.filled()
	secure, err := cfg.tls()
	if err != nil {
		return nil, fmt.Errorf("open etcd: %w", err)
	}
	password, err := cfg.password()
	if err != nil {
		return nil, fmt.Errorf("open etcd: %w", err)
	}
	reconnect := grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: cfg.Timeout.Duration}
	reconnect.Backoff.BaseDelay, reconnect.Backoff.MaxDelay = 100*time.Millisecond, 3*time.Second // not two minutes: policy waits
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: secure, Username: cfg.Username, Password: password,
		DialTimeout: cfg.Timeout.Duration, DialKeepAliveTime: 2 * cfg.Heartbeat.Duration, DialKeepAliveTimeout: cfg.Timeout.Duration,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(reconnect)},
		Logger:      zap.NewNop(), // what goes wrong is returned, and told once
	})
	if err != nil {
		return nil, fail(context.Background(), "open etcd", err)
	}
	s := &Store{client: client, cfg: cfg, objects: cfg.Prefix + "/v3/", name: cfg.Prefix + "/store"}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// Close gives back the connections.
func (s *Store) Close() error {
	s.end()
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd: %w", err)
	}
	return nil
}

// within is a context for one request: it ends when the request has taken too long,
// and with the store.
func (s *Store) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ask, cancel := context.WithTimeout(ctx, s.cfg.Timeout.Duration)
	stop := context.AfterFunc(s.life, cancel)
	return ask, func() { stop(); cancel() }
}

// path is where an object is kept.
func (s *Store) path(k datastore.Key) string {
	namespace := k.Namespace
	if namespace == "" {
		namespace = noNamespace
	}
	return s.objects + k.Kind + "/" + namespace + "/" + k.Name
}

// key is whose place a path is; the zero value if it is nobody's.
func (s *Store) key(path string) datastore.Key {
	kind, rest, _ := strings.Cut(strings.TrimPrefix(path, s.objects), "/")
	namespace, name, _ := strings.Cut(rest, "/")
	spaced, ok := datastore.Namespaced(kind)
	if !ok || name == "" || strings.Contains(name, "/") || namespace == "" || spaced == (namespace == noNamespace) {
		return datastore.Key{}
	}
	if !spaced && namespace != noNamespace {
		return datastore.Key{}
	}
	if !spaced {
		namespace = ""
	}
	return datastore.Key{Kind: kind, Namespace: namespace, Name: name}
}

// below is what the paths of a scope begin with; a namespace without a kind has
// no such thing, and is looked for among all.
func (s *Store) below(scope datastore.Scope) string {
	switch {
	case scope.Kind == "":
		return s.objects
	case scope.Namespace == "":
		return s.objects + scope.Kind + "/"
	}
	return s.objects + scope.Kind + "/" + scope.Namespace + "/"
}

// read is what a pair of etcd holds: an object, or a refusal of it.
func (s *Store) read(kv *mvccpb.KeyValue) (v3.Object, *datastore.Refusal) {
	path := string(kv.Key)
	key := s.key(path)
	if key == (datastore.Key{}) {
		return nil, &datastore.Refusal{Where: path, Err: fmt.Errorf("read %s: %w: it is no name of an object: delete it", path, datastore.ErrInvalid)}
	}
	o, err := datastore.Read(key, kv.Value, version(kv.ModRevision))
	if err != nil {
		return nil, &datastore.Refusal{Key: key, Where: path, Err: err}
	}
	return o, nil
}

// version is a revision of etcd as resource version.
func version(revision int64) string { return strconv.FormatInt(revision, 10) }

// revision is one of etcd, of a store with a name.
func revision(r int64, name string) datastore.Revision {
	return datastore.Revision(version(r) + "/" + name)
}

// parse takes a revision apart.
func parse(r datastore.Revision) (at int64, name string, err error) {
	number, name, ok := strings.Cut(string(r), "/")
	at, err = strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || at < 0 {
		return 0, "", fmt.Errorf("%w: revision %q is none of an etcd", datastore.ErrCompacted, r)
	}
	return at, name, nil
}

// fail says in the words of a store what went wrong; of a request that has waited for a
// connection in vain, why there is none.
func (s *Store) fail(ctx context.Context, what string, err error) error {
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		if why := s.unconnected(ctx); why != "" {
			return fmt.Errorf("%s: %w: no connection to %s: %s", what, datastore.ErrUnavailable, s.cfg.Where(), why)
		}
	}
	return fail(ctx, what, err)
}

// unconnected is why there is no connection; "" if there is one, or nobody knows. A
// request that does not wait for one is told.
func (s *Store) unconnected(ctx context.Context) string {
	conn := s.client.ActiveConnection()
	if conn.GetState() == connectivity.Ready {
		return ""
	}
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	_, err := etcdserverpb.NewKVClient(conn).Range(ask, &etcdserverpb.RangeRequest{Key: []byte(s.name), CountOnly: true}, grpc.WaitForReady(false))
	if status.Code(err) != codes.Unavailable {
		return ""
	}
	return status.Convert(err).Message()
}

// fail is the same without a connection to ask.
func fail(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w: %w", what, datastore.ErrUnavailable, context.Cause(ctx))
	}
	var kind error
	switch rpc := rpctypes.Error(err); {
	case errors.Is(rpc, rpctypes.ErrCompacted):
		return fmt.Errorf("%s: %w", what, datastore.ErrCompacted)
	case errors.Is(rpc, rpctypes.ErrRequestTooLarge):
		kind = datastore.ErrInvalid
	case errors.Is(rpc, rpctypes.ErrNoSpace):
		return fmt.Errorf("%s: %w: its quota is used up: compact and defragment it, or give it more, then disarm its alarm", what, datastore.ErrUnavailable)
	case denied(rpc):
		kind = datastore.ErrDenied
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w: it was closed", what, datastore.ErrUnavailable)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w: etcd did not answer in time; what was to be written may have been", what, datastore.ErrUnavailable)
	default:
		kind = datastore.ErrUnavailable
	}
	return fmt.Errorf("%s: %w: %w", what, kind, err)
}

// denied reports whether etcd knows us too little.
func denied(err error) bool {
	for _, e := range []error{rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound, rpctypes.ErrInvalidAuthToken} {
		if errors.Is(err, e) {
			return true
		}
	}
	code := status.Code(err)
	return code == codes.PermissionDenied || code == codes.Unauthenticated
}
