// Package datastore is where the objects of api/v3 are kept, whatever keeps them:
// a Store is got, listed, watched and written the same way over etcd
// (datastore/etcd) and over a folder of manifests (datastore/file), and
// datastore/contract holds every driver against what is said here.
//
//	           write                                read
//	Create, Update, Apply, Delete       Get, List, Watch ► Follower ► whoever acts
//	           │                                    ▲
//	  Default, Validate (Admit)          decode, Validate (Read): what fails is Refused,
//	           ▼                                    │ told, and kept out; the rest goes on
//	           └──────────────► store ──────────────┘
//
// What a store keeps of an object beside what its writer says: a uid and a
// creation time from its first write on, a generation that counts changes of
// anything but status and metadata, and a resource version that changes with the
// object and with nothing else. A write that changes nothing is no write: nobody
// is told of it.
package datastore
