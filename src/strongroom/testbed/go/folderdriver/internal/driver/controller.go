package driver

import (
	"context"
	"strconv"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"strongroom.testbed/folderdriver/internal/folders"
)

// Parameters of a VolumeSnapshotClass by which tests make snapshots slow or impossible.
const (
	parameterReadyAfter = "readyAfter" // a Go duration from the cut until the snapshot says it is ready
	parameterFail       = "fail"       // a message: creating the snapshot fails with it
)

var controllerCapabilities = []csi.ControllerServiceCapability_RPC_Type{
	csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
	csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
	csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
}

// ControllerGetCapabilities lists what the controller service can do.
func (d *Driver) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, capability := range controllerCapabilities {
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: capability}},
		})
	}
	return answer, nil
}

func checkCapabilities(capabilities []*csi.VolumeCapability) error {
	if len(capabilities) == 0 {
		return invalid("volume capabilities are missing")
	}
	for _, capability := range capabilities {
		if capability.GetBlock() != nil {
			return invalid("a folder cannot be a block device")
		}
	}
	return nil
}

// CreateVolume makes an empty folder, or one with the files of a snapshot or of another volume.
func (d *Driver) CreateVolume(ctx context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if request.GetName() == "" {
		return nil, invalid("name is missing")
	}
	if err := checkCapabilities(request.GetVolumeCapabilities()); err != nil {
		return nil, err
	}
	wanted := folders.Record{
		Name:       request.GetName(),
		SizeBytes:  request.GetCapacityRange().GetRequiredBytes(),
		Parameters: request.GetParameters(),
	}
	if source := request.GetVolumeContentSource().GetSnapshot(); source != nil {
		wanted.SourceKind, wanted.SourceID = folders.Snapshot, source.GetSnapshotId()
	} else if source := request.GetVolumeContentSource().GetVolume(); source != nil {
		wanted.SourceKind, wanted.SourceID = folders.Volume, source.GetVolumeId()
	}
	record, err := d.Folders.Create(ctx, folders.Volume, wanted)
	if err != nil {
		return nil, asStatus(err)
	}
	if limit := request.GetCapacityRange().GetLimitBytes(); limit != 0 && record.SizeBytes > limit {
		return nil, status.Errorf(codes.AlreadyExists, "volume %q is larger than the limit asked for", record.Name)
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId: record.ID, CapacityBytes: record.SizeBytes, ContentSource: request.GetVolumeContentSource(),
	}}, nil
}

// DeleteVolume removes a volume; one that is gone is no error.
func (d *Driver) DeleteVolume(_ context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if request.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	return &csi.DeleteVolumeResponse{}, asStatus(d.Folders.Delete(folders.Volume, request.GetVolumeId()))
}

// ValidateVolumeCapabilities confirms everything but block access.
func (d *Driver) ValidateVolumeCapabilities(
	_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if request.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	if len(request.GetVolumeCapabilities()) == 0 {
		return nil, invalid("volume capabilities are missing")
	}
	if _, err := d.Folders.Get(folders.Volume, request.GetVolumeId()); err != nil {
		return nil, asStatus(err)
	}
	if err := checkCapabilities(request.GetVolumeCapabilities()); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
			VolumeCapabilities: request.GetVolumeCapabilities(),
		},
	}, nil
}

func snapshotOf(record folders.Record) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: record.ID, SourceVolumeId: record.SourceID, SizeBytes: record.SizeBytes,
		CreationTime: timestamppb.New(record.Created), ReadyToUse: record.Ready(),
	}
}

// CreateSnapshot copies a volume's files as they are now.
func (d *Driver) CreateSnapshot(
	ctx context.Context, request *csi.CreateSnapshotRequest,
) (*csi.CreateSnapshotResponse, error) {
	if request.GetName() == "" {
		return nil, invalid("name is missing")
	}
	if request.GetSourceVolumeId() == "" {
		return nil, invalid("source volume id is missing")
	}
	if message := request.GetParameters()[parameterFail]; message != "" {
		return nil, status.Error(codes.InvalidArgument, message)
	}
	wanted := folders.Record{
		Name: request.GetName(), SourceKind: folders.Volume, SourceID: request.GetSourceVolumeId(),
		Parameters: request.GetParameters(),
	}
	if delay := request.GetParameters()[parameterReadyAfter]; delay != "" {
		duration, err := time.ParseDuration(delay)
		if err != nil {
			return nil, invalid("parameter " + parameterReadyAfter + ": " + err.Error())
		}
		wanted.ReadyAt = time.Now().Add(duration).UTC()
	}
	record, err := d.Folders.Create(ctx, folders.Snapshot, wanted)
	if err != nil {
		return nil, asStatus(err)
	}
	return &csi.CreateSnapshotResponse{Snapshot: snapshotOf(record)}, nil
}

// DeleteSnapshot removes a snapshot; one that is gone is no error.
func (d *Driver) DeleteSnapshot(
	_ context.Context, request *csi.DeleteSnapshotRequest,
) (*csi.DeleteSnapshotResponse, error) {
	if request.GetSnapshotId() == "" {
		return nil, invalid("snapshot id is missing")
	}
	return &csi.DeleteSnapshotResponse{}, asStatus(d.Folders.Delete(folders.Snapshot, request.GetSnapshotId()))
}

// ListSnapshots lists by id, by source volume, or all; a token is an offset into the list ordered by id.
func (d *Driver) ListSnapshots(
	_ context.Context, request *csi.ListSnapshotsRequest,
) (*csi.ListSnapshotsResponse, error) {
	var matching []folders.Record
	for _, record := range d.Folders.List(folders.Snapshot) {
		if (request.GetSnapshotId() == "" || request.GetSnapshotId() == record.ID) &&
			(request.GetSourceVolumeId() == "" || request.GetSourceVolumeId() == record.SourceID) {
			matching = append(matching, record)
		}
	}
	start := 0
	if token := request.GetStartingToken(); token != "" {
		offset, err := strconv.Atoi(token)
		if err != nil || offset < 0 || offset > len(matching) {
			return nil, status.Errorf(codes.Aborted, "starting token %q is none of ours", token)
		}
		start = offset
	}
	answer := &csi.ListSnapshotsResponse{}
	end := len(matching)
	if limit := int(request.GetMaxEntries()); limit > 0 && start+limit < end {
		end = start + limit
		answer.NextToken = strconv.Itoa(end)
	}
	for _, record := range matching[start:end] {
		answer.Entries = append(answer.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: snapshotOf(record)})
	}
	return answer, nil
}
