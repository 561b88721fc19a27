package driver

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"strongroom.testbed/folderdriver/internal/folders"
)

// NodeGetInfo tells the node's name. There is no topology.
func (d *Driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.Node}, nil
}

// NodeGetCapabilities says that publishing needs no staging.
func (d *Driver) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

// mounted reports whether something is mounted at path, as this process sees it.
func mounted(path string) (bool, error) {
	table, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	defer table.Close()
	const mountPoint = 4 // proc(5): the fifth field
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > mountPoint && fields[mountPoint] == path {
			return true, nil
		}
	}
	return false, lines.Err()
}

// NodePublishVolume bind-mounts the volume's folder at the target. Needs root.
func (d *Driver) NodePublishVolume(
	_ context.Context, request *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	target := request.GetTargetPath()
	switch {
	case request.GetVolumeId() == "":
		return nil, invalid("volume id is missing")
	case target == "":
		return nil, invalid("target path is missing")
	case request.GetVolumeCapability() == nil:
		return nil, invalid("volume capability is missing")
	}
	if err := checkCapabilities([]*csi.VolumeCapability{request.GetVolumeCapability()}); err != nil {
		return nil, err
	}
	if _, err := d.Folders.Get(folders.Volume, request.GetVolumeId()); err != nil {
		return nil, asStatus(err)
	}
	if there, err := mounted(target); err != nil || there {
		return &csi.NodePublishVolumeResponse{}, asStatus(err)
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return nil, asStatus(err)
	}
	folder := d.Folders.Path(folders.Volume, request.GetVolumeId())
	if err := syscall.Mount(folder, target, "", syscall.MS_BIND, ""); err != nil {
		return nil, status.Errorf(codes.Internal, "bind mount: %v", err)
	}
	if request.GetReadonly() {
		const readOnly = syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY // a bind takes this in a second step only
		if err := syscall.Mount("", target, "", readOnly, ""); err != nil {
			return nil, asStatus(errors.Join(err, syscall.Unmount(target, 0)))
		}
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

// NodeUnpublishVolume unmounts the target and removes it.
func (d *Driver) NodeUnpublishVolume(
	_ context.Context, request *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	target := request.GetTargetPath()
	if request.GetVolumeId() == "" || target == "" {
		return nil, invalid("volume id and target path are needed")
	}
	there, err := mounted(target)
	if err != nil {
		return nil, asStatus(err)
	}
	if there {
		if err := syscall.Unmount(target, 0); err != nil {
			return nil, status.Errorf(codes.Internal, "unmount: %v", err)
		}
	}
	// Remove, never RemoveAll: if something is mounted there after all, its files are the volume's.
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, asStatus(err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
