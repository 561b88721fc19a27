// Package provisioner turns PersistentVolumeClaims into volumes of the folder driver, as external-provisioner does.
package provisioner

import (
	"context"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const (
	// A claim on a snapshot that is not ready yet is tried again soon: the library's own 15 s would set the pace of tests.
	firstRetry   = 100 * time.Millisecond
	slowestRetry = 2 * time.Second

	workers = 16 // claims of a whole restored namespace are provisioned side by side

	// The control plane of the testbed serves nobody else; client-go's default is 5 requests a second.
	queriesPerSecond = 500
	queryBurst       = 1000
)

var (
	volumeSnapshots        = snapshotResource("volumesnapshots")
	volumeSnapshotContents = snapshotResource("volumesnapshotcontents")
)

func snapshotResource(plural string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: plural}
}

type provisioner struct {
	driver  string
	volumes csi.ControllerClient
	typed   kubernetes.Interface
	dynamic dynamic.Interface
}

// Run provisions and deletes volumes of the named driver until ctx ends.
func Run(ctx context.Context, config *rest.Config, driver string, volumes csi.ControllerClient) error {
	config.QPS, config.Burst = queriesPerSecond, queryBurst
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	untyped, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	controller.NewProvisionController(ctx, typed, driver,
		&provisioner{driver: driver, volumes: volumes, typed: typed, dynamic: untyped},
		controller.LeaderElection(false),
		controller.AddFinalizer(true), // as external-provisioner: no PV vanishes before its volume
		controller.Threadiness(workers),
		controller.FailedProvisionThreshold(0), // 0 = try for ever, as a cluster does
		controller.FailedDeleteThreshold(0),
		controller.RateLimiter(workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, slowestRetry)),
	).Run(ctx)
	return nil
}

// Provision makes the volume of a claim and returns its PV.
func (p *provisioner) Provision(
	ctx context.Context, options controller.ProvisionOptions,
) (*core.PersistentVolume, controller.ProvisioningState, error) {
	claim, class := options.PVC, options.StorageClass
	source, err := p.contentSource(ctx, claim)
	if err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	size := claim.Spec.Resources.Requests[core.ResourceStorage]
	answer, err := p.volumes.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name:                options.PVName,
		CapacityRange:       &csi.CapacityRange{RequiredBytes: size.Value()},
		Parameters:          class.Parameters,
		VolumeContentSource: source,
		VolumeCapabilities: []*csi.VolumeCapability{{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
		}},
	})
	if err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	filesystem := core.PersistentVolumeFilesystem
	volume := &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: options.PVName},
		Spec: core.PersistentVolumeSpec{
			AccessModes:  claim.Spec.AccessModes,
			VolumeMode:   &filesystem,
			MountOptions: class.MountOptions,
			Capacity: core.ResourceList{
				core.ResourceStorage: *resource.NewQuantity(answer.GetVolume().GetCapacityBytes(), resource.BinarySI),
			},
			PersistentVolumeSource: core.PersistentVolumeSource{CSI: &core.CSIPersistentVolumeSource{
				Driver: p.driver, VolumeHandle: answer.GetVolume().GetVolumeId(),
				VolumeAttributes: answer.GetVolume().GetVolumeContext(),
			}},
		},
	}
	if class.ReclaimPolicy != nil {
		volume.Spec.PersistentVolumeReclaimPolicy = *class.ReclaimPolicy
	}
	return volume, controller.ProvisioningFinished, nil
}

// Delete removes the volume behind a PV of ours.
func (p *provisioner) Delete(ctx context.Context, volume *core.PersistentVolume) error {
	if volume.Spec.CSI == nil || volume.Spec.CSI.Driver != p.driver {
		return &controller.IgnoredError{Reason: "the volume belongs to another driver"}
	}
	_, err := p.volumes.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: volume.Spec.CSI.VolumeHandle})
	return err
}

// contentSource is what a claim's data source means to the driver; nil for a claim without one.
func (p *provisioner) contentSource(
	ctx context.Context, claim *core.PersistentVolumeClaim,
) (*csi.VolumeContentSource, error) {
	source := claim.Spec.DataSource
	switch {
	case source == nil && claim.Spec.DataSourceRef == nil:
		return nil, nil
	case source == nil:
		return nil, fmt.Errorf("data source %s is not of a kind that volumes are made from", claim.Spec.DataSourceRef.Kind)
	case source.Kind == "VolumeSnapshot":
		return p.fromSnapshot(ctx, claim.Namespace, source.Name)
	case source.Kind == "PersistentVolumeClaim":
		return p.fromClaim(ctx, claim.Namespace, source.Name)
	default:
		return nil, fmt.Errorf("data source %s is not of a kind that volumes are made from", source.Kind)
	}
}

func (p *provisioner) fromSnapshot(ctx context.Context, namespace, name string) (*csi.VolumeContentSource, error) {
	snapshot, err := p.dynamic.Resource(volumeSnapshots).Namespace(namespace).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return nil, err
	}
	ready, _, err := unstructured.NestedBool(snapshot.Object, "status", "readyToUse")
	if err != nil {
		return nil, err
	}
	contentName, _, err := unstructured.NestedString(snapshot.Object, "status", "boundVolumeSnapshotContentName")
	if err != nil {
		return nil, err
	}
	if !ready || contentName == "" {
		return nil, fmt.Errorf("VolumeSnapshot %s is not ready", name)
	}
	content, err := p.dynamic.Resource(volumeSnapshotContents).Get(ctx, contentName, meta.GetOptions{})
	if err != nil {
		return nil, err
	}
	// A content that was not bound back belongs to another claimant, whose data it is.
	bound, _, err := unstructured.NestedString(content.Object, "spec", "volumeSnapshotRef", "uid")
	if err != nil {
		return nil, err
	}
	if bound != string(snapshot.GetUID()) {
		return nil, fmt.Errorf("VolumeSnapshotContent %s is not bound to VolumeSnapshot %s", contentName, name)
	}
	driver, _, err := unstructured.NestedString(content.Object, "spec", "driver")
	if err != nil {
		return nil, err
	}
	handle, _, err := unstructured.NestedString(content.Object, "status", "snapshotHandle")
	if err != nil {
		return nil, err
	}
	if driver != p.driver || handle == "" {
		return nil, fmt.Errorf("VolumeSnapshotContent %s has driver %q and handle %q", contentName, driver, handle)
	}
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: handle},
	}}, nil
}

func (p *provisioner) fromClaim(ctx context.Context, namespace, name string) (*csi.VolumeContentSource, error) {
	claim, err := p.typed.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return nil, err
	}
	if claim.Spec.VolumeName == "" {
		return nil, fmt.Errorf("PersistentVolumeClaim %s is not bound", name)
	}
	volume, err := p.typed.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, meta.GetOptions{})
	if err != nil {
		return nil, err
	}
	if volume.Spec.CSI == nil || volume.Spec.CSI.Driver != p.driver {
		return nil, fmt.Errorf("PersistentVolumeClaim %s is served by another driver", name)
	}
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: volume.Spec.CSI.VolumeHandle},
	}}, nil
}
