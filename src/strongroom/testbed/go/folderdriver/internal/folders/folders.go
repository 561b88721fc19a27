// Package folders keeps volumes and snapshots as folders under one root, each beside a record that makes it exist.
//
// Layout: volumes/<id>/ and snapshots/<id>/ hold the files; <id>.json beside each holds its Record. A record is written
// by rename after its folder is complete, and removed before its folder is: a folder without a record is the remains
// of a crash, which Open removes.
package folders

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"
)

// Kind says what a folder is; its value is the name of the folder that holds all of that kind.
type Kind string

const (
	Volume   Kind = "volumes"
	Snapshot Kind = "snapshots"
)

var (
	// ErrNotFound: no volume or snapshot has that id.
	ErrNotFound = errors.New("not found")
	// ErrDiffers: the name is taken by a volume or snapshot made from other parameters.
	ErrDiffers = errors.New("exists with other parameters")
)

// Record describes one volume or snapshot.
type Record struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`                 // the caller's name; unique within a kind
	SizeBytes  int64             `json:"sizeBytes"`            // as promised to the caller; not enforced
	SourceKind Kind              `json:"sourceKind,omitempty"` // what it was copied from; empty for an empty volume
	SourceID   string            `json:"sourceID,omitempty"`
	Parameters map[string]string `json:"parameters,omitempty"` // of the class, kept so that tests can read what arrived
	Created    time.Time         `json:"created"`
	ReadyAt    time.Time         `json:"readyAt"`
}

// Ready reports whether the record may be used as a source yet.
func (r Record) Ready() bool { return !time.Now().Before(r.ReadyAt) }

// Store is the root folder. It is safe for concurrent use, and must be the only one on its folder.
type Store struct {
	root string

	mu      sync.Mutex
	records map[Kind]map[string]Record
}

// Open reads the records under root, making the layout if it is missing, and removes what a crash left half made.
func Open(root string) (*Store, error) {
	store := &Store{root: root, records: map[Kind]map[string]Record{}}
	for _, kind := range []Kind{Volume, Snapshot} {
		if err := os.MkdirAll(filepath.Join(root, string(kind)), 0o711); err != nil {
			return nil, err
		}
		if err := store.load(kind); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
	}
	return store, nil
}

func (s *Store) load(kind Kind) error {
	entries, err := os.ReadDir(filepath.Join(s.root, string(kind)))
	if err != nil {
		return err
	}
	records := map[string]Record{}
	for _, entry := range entries {
		id, isRecord := strings.CutSuffix(entry.Name(), ".json")
		if !isRecord {
			continue
		}
		raw, err := os.ReadFile(s.recordPath(kind, id))
		if err != nil {
			return err
		}
		var record Record
		if err := json.Unmarshal(raw, &record); err != nil {
			return fmt.Errorf("%s: %w", entry.Name(), err)
		}
		records[id] = record
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".json") {
			continue
		}
		if _, known := records[entry.Name()]; !known {
			if err := os.RemoveAll(filepath.Join(s.root, string(kind), entry.Name())); err != nil {
				return err
			}
		}
	}
	s.records[kind] = records
	return nil
}

// Path is the folder that holds the files of id.
func (s *Store) Path(kind Kind, id string) string { return filepath.Join(s.root, string(kind), id) }

func (s *Store) recordPath(kind Kind, id string) string { return s.Path(kind, id) + ".json" }

// Get returns the record of id, or ErrNotFound.
func (s *Store) Get(kind Kind, id string) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(kind, id)
}

func (s *Store) get(kind Kind, id string) (Record, error) {
	record, known := s.records[kind][id]
	if !known {
		return Record{}, fmt.Errorf("%s/%s: %w", kind, id, ErrNotFound)
	}
	return record, nil
}

// List returns all records of a kind in the order of their ids.
func (s *Store) List(kind Kind) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	records := make([]Record, 0, len(s.records[kind]))
	for _, record := range s.records[kind] {
		records = append(records, record)
	}
	sort.Slice(records, func(i, j int) bool { return records[i].ID < records[j].ID })
	return records
}

// Create makes a volume or snapshot as wanted (ID and Created are filled in), with the files of its source if it names
// one. Asking again by the same name returns the one that is there, or ErrDiffers when it was made otherwise.
// A missing source is ErrNotFound.
//
// Copies run under the store's lock: what is copied cannot be deleted meanwhile, and test volumes are small.
func (s *Store) Create(ctx context.Context, kind Kind, wanted Record) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, existing := range s.records[kind] {
		if existing.Name != wanted.Name {
			continue
		}
		if existing.SourceKind != wanted.SourceKind || existing.SourceID != wanted.SourceID ||
			existing.SizeBytes < wanted.SizeBytes {
			return Record{}, fmt.Errorf("%s named %q: %w", kind, wanted.Name, ErrDiffers)
		}
		return existing, nil
	}
	if wanted.SourceKind != "" {
		source, err := s.get(wanted.SourceKind, wanted.SourceID)
		if err != nil {
			return Record{}, err
		}
		wanted.SizeBytes = max(wanted.SizeBytes, source.SizeBytes)
	}
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return Record{}, err
	}
	wanted.ID = hex.EncodeToString(random[:])
	wanted.Created = time.Now().UTC()
	if err := s.fill(ctx, kind, wanted); err != nil {
		return Record{}, errors.Join(err, os.RemoveAll(s.Path(kind, wanted.ID)))
	}
	s.records[kind][wanted.ID] = wanted
	return wanted, nil
}

func (s *Store) fill(ctx context.Context, kind Kind, record Record) error {
	folder := s.Path(kind, record.ID)
	if err := os.Mkdir(folder, 0o777); err != nil {
		return err
	}
	// Pods of any user write into their volume; the mode must not depend on the umask of whoever started the driver.
	if err := os.Chmod(folder, 0o777); err != nil {
		return err
	}
	if record.SourceKind != "" {
		if err := copyTree(ctx, s.Path(record.SourceKind, record.SourceID), folder); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(record)
	if err != nil {
		return err
	}
	unfinished := s.recordPath(kind, record.ID) + ".new"
	if err := os.WriteFile(unfinished, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(unfinished, s.recordPath(kind, record.ID))
}

// Delete removes a volume or snapshot. One that is not there is no error.
func (s *Store) Delete(kind Kind, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.records[kind][id]; !known {
		return nil
	}
	if err := os.Remove(s.recordPath(kind, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(s.Path(kind, id)); err != nil {
		return err
	}
	delete(s.records[kind], id)
	return nil
}

// copyTree copies what is in the folder source into the folder target with owners, modes, times, links and extended
// attributes. cp knows all of these; Go's os.CopyFS keeps none.
func copyTree(ctx context.Context, source, target string) error {
	output, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", source+"/.", target).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s: %w: %s", filepath.Base(source), err, output)
	}
	return nil
}
