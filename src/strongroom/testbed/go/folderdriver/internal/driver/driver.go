// Package driver is the CSI face of the folder store: identity, controller, node, and registration with a kubelet.
package driver

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"strongroom.testbed/folderdriver/internal/folders"
)

// Version is what the driver calls itself; nothing depends on it.
const Version = "1.0.0"

// Driver serves one node's volumes from one folder store.
type Driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	Name     string
	Node     string
	Endpoint string // path of the CSI socket, as the kubelet is told it
	Folders  *folders.Store
}

// Register adds the driver's three CSI services to a server.
func (d *Driver) Register(server grpc.ServiceRegistrar) {
	csi.RegisterIdentityServer(server, d)
	csi.RegisterControllerServer(server, d)
	csi.RegisterNodeServer(server, d)
}

// GetPluginInfo tells name and version.
func (d *Driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.Name, VendorVersion: Version}, nil
}

// GetPluginCapabilities says that there is a controller service; volumes are reachable from everywhere (one node).
func (d *Driver) GetPluginCapabilities(
	context.Context, *csi.GetPluginCapabilitiesRequest,
) (*csi.GetPluginCapabilitiesResponse, error) {
	controller := &csi.PluginCapability{Type: &csi.PluginCapability_Service_{
		Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE},
	}}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{controller}}, nil
}

// Probe answers ready: the store was opened before the server started.
func (d *Driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

// asStatus gives an error of the folder store the gRPC code that CSI asks for.
func asStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, folders.ErrNotFound):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, folders.ErrDiffers):
		return status.Error(codes.AlreadyExists, err.Error())
	default:
		return status.Error(codes.Internal, err.Error())
	}
}

// invalid is the answer to a request that lacks a field or asks for what a folder cannot be.
func invalid(reason string) error { return status.Error(codes.InvalidArgument, reason) }
