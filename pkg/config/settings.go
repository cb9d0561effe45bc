package config

import (
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// The reasons why ignoring a setting does no harm, or does.
const (
	noCluster   = "the node does not join a cluster"
	noImageGC   = "unused images are not removed; watch the disk"
	noRotation  = "container logs are not rotated; watch the disk"
	noEviction  = "pods are not evicted under memory or disk pressure"
	noCPUs      = "CPUs are not assigned to containers"
	noNUMA      = "memory and devices are not aligned to NUMA nodes"
	noShutdown  = "pods are not ended in order when the machine shuts down"
	noEnforce   = "the system's own cgroups are not limited"
	runtimeNet  = "the container runtime's network configuration decides"
	noVolumes   = "these volumes are not built"
	noMemoryQoS = "memory protection and throttling by cgroup are not set"
	noDeadKept  = "of each container the last one that ended is kept, others go at once"
)

// fieldSettings says of every field of KubeletConfiguration whether it is
// honoured. A test holds it against the type.
var fieldSettings = map[string]setting{
	// Where pods come from, and how they are run.
	"staticPodPath":            {state: built},
	"staticPodURL":             {state: built},
	"staticPodURLHeader":       {state: built},
	"fileCheckFrequency":       {state: built},
	"httpCheckFrequency":       {state: built},
	"syncFrequency":            {state: harmless, why: "nothing polls; changes are acted on as they happen"},
	"runOnce":                  {state: built}, // refused by validation, as in the kubelet
	"containerRuntimeEndpoint": {state: built},
	"imageServiceEndpoint":     {state: built},
	"runtimeRequestTimeout":    {state: built},
	"podLogsDir":               {state: built},
	"crashLoopBackOff":         {state: built},
	"seccompDefault":           {state: built},
	"allowedUnsafeSysctls":     {state: built},
	"userNamespaces":           {state: built},
	"oomScoreAdj":              {state: built},
	"maxOpenFiles":             {state: harmless, why: "the limit of the service that starts the agent applies"},
	"logging":                  {state: built},
	"featureGates":             {state: built}, // judged gate by gate

	// Images.
	"registryPullQPS":                        {state: built},
	"registryBurst":                          {state: built},
	"serializeImagePulls":                    {state: built},
	"maxParallelImagePulls":                  {state: built},
	"imagePullCredentialsVerificationPolicy": {state: unsafe, why: "any pod may use any image that is on the node", off: neverVerify},
	"preloadedImagesVerificationAllowlist":   {state: harmless, why: "images on the node are not checked against pull secrets"},
	"imageMinimumGCAge":                      {state: harmless, why: noImageGC},
	"imageMaximumGCAge":                      {state: harmless, why: noImageGC},
	"imageGCHighThresholdPercent":            {state: harmless, why: noImageGC},
	"imageGCLowThresholdPercent":             {state: harmless, why: noImageGC},

	// Logs of containers.
	"containerLogMaxSize":         {state: harmless, why: noRotation},
	"containerLogMaxFiles":        {state: harmless, why: noRotation},
	"containerLogMaxWorkers":      {state: harmless, why: noRotation},
	"containerLogMonitorInterval": {state: harmless, why: noRotation},

	// Names and networks.
	"clusterDNS":             {state: built},
	"clusterDomain":          {state: built},
	"resolvConf":             {state: built},
	"hairpinMode":            {state: harmless, why: runtimeNet},
	"podCIDR":                {state: harmless, why: runtimeNet},
	"makeIPTablesUtilChains": {state: harmless, why: "the agent writes no iptables chains"},
	"iptablesMasqueradeBit":  {state: harmless, why: "the agent writes no iptables chains"},
	"iptablesDropBit":        {state: harmless, why: "the agent writes no iptables chains"},

	// Cgroups, limits and reservations.
	"cgroupDriver":            {state: built},
	"cgroupRoot":              {state: built},
	"cgroupsPerQOS":           {state: built},
	"failSwapOn":              {state: built},
	"failCgroupV1":            {state: built},
	"maxPods":                 {state: built},
	"podsPerCore":             {state: built},
	"podPidsLimit":            {state: built},
	"cpuCFSQuota":             {state: built},
	"cpuCFSQuotaPeriod":       {state: built},
	"kubeReserved":            {state: built},
	"systemReserved":          {state: built},
	"enforceNodeAllocatable":  {state: unsafe, why: noEnforce, off: enforcesPodsOrLess},
	"systemReservedCgroup":    {state: harmless, why: noEnforce},
	"kubeReservedCgroup":      {state: harmless, why: noEnforce},
	"kubeletCgroups":          {state: harmless, why: "processes stay in the cgroups they were started in"},
	"systemCgroups":           {state: harmless, why: "processes stay in the cgroups they were started in"},
	"singleProcessOOMKill":    {state: built},
	"protectKernelDefaults":   {state: unsafe, why: "kernel settings are not checked"},
	"memorySwap":              {state: built},
	"memoryThrottlingFactor":  {state: harmless, why: noMemoryQoS},
	"memoryReservationPolicy": {state: unsafe, why: noMemoryQoS},
	"qosReserved":             {state: unsafe, why: "nothing is kept back for higher classes of pods"},

	// CPUs, memory and devices.
	"reservedSystemCPUs":           {state: unsafe, why: noCPUs},
	"cpuManagerPolicy":             {state: unsafe, why: noCPUs},
	"cpuManagerPolicyOptions":      {state: unsafe, why: noCPUs},
	"cpuManagerReconcilePeriod":    {state: harmless, why: noCPUs},
	"memoryManagerPolicy":          {state: unsafe, why: noNUMA},
	"reservedMemory":               {state: unsafe, why: noNUMA},
	"topologyManagerPolicy":        {state: unsafe, why: noNUMA},
	"topologyManagerPolicyOptions": {state: unsafe, why: noNUMA},
	"topologyManagerScope":         {state: harmless, why: noNUMA},

	// Eviction and shutdown.
	"evictionHard":                     {state: unsafe, why: noEviction, off: hardOff},
	"evictionSoft":                     {state: unsafe, why: noEviction, off: softOff},
	"evictionSoftGracePeriod":          {state: harmless, why: noEviction},
	"evictionPressureTransitionPeriod": {state: harmless, why: noEviction},
	"evictionMaxPodGracePeriod":        {state: harmless, why: noEviction},
	"evictionMinimumReclaim":           {state: harmless, why: noEviction},
	"mergeDefaultEvictionSettings":     {state: built},
	"kernelMemcgNotification":          {state: harmless, why: noEviction},
	"localStorageCapacityIsolation":    {state: harmless, why: "limits of ephemeral storage are not enforced"},
	"shutdownGracePeriod":              {state: unsafe, why: noShutdown},
	"shutdownGracePeriodCriticalPods":  {state: unsafe, why: noShutdown},
	"shutdownGracePeriodByPodPriority": {state: unsafe, why: noShutdown},

	// Volumes.
	"volumePluginDir":                           {state: harmless, why: noVolumes},
	"enableControllerAttachDetach":              {state: harmless, why: noVolumes},
	"volumeStatsAggPeriod":                      {state: built},
	"configMapAndSecretChangeDetectionStrategy": {state: harmless, why: "what pods refer to is always watched", off: watches},

	// The agent's own ports.
	"healthzPort":                    {state: built},
	"healthzBindAddress":             {state: built},
	"enableServer":                   {state: built},
	"address":                        {state: built},
	"port":                           {state: built},
	"readOnlyPort":                   {state: built},
	"tlsCertFile":                    {state: built},
	"tlsPrivateKeyFile":              {state: built},
	"tlsCipherSuites":                {state: built},
	"tlsCurvePreferences":            {state: built},
	"tlsMinVersion":                  {state: built},
	"authentication":                 {state: built},
	"authorization":                  {state: built},
	"enableDebuggingHandlers":        {state: built},
	"enableContentionProfiling":      {state: built},
	"enableProfilingHandler":         {state: built},
	"enableDebugFlagsHandler":        {state: built},
	"enableSystemLogHandler":         {state: built},
	"enableSystemLogQuery":           {state: built},
	"streamingConnectionIdleTimeout": {state: built},
	"showHiddenMetricsForVersion":    {state: harmless, why: "no series of the agent is hidden"},
	"tracing":                        {state: built},

	// The cluster.
	"rotateCertificates":        {state: built},
	"serverTLSBootstrap":        {state: built},
	"registerNode":              {state: built},
	"registerWithTaints":        {state: built},
	"providerID":                {state: built},
	"nodeStatusUpdateFrequency": {state: built},
	"nodeStatusReportFrequency": {state: built},
	"nodeLeaseDurationSeconds":  {state: built},
	"nodeStatusMaxImages":       {state: built},
	"eventRecordQPS":            {state: built},
	"eventBurst":                {state: built},
	"contentType":               {state: built},
	"kubeAPIQPS":                {state: built},
	"kubeAPIBurst":              {state: built},
}

// flagSettings says the same of the flags that stand for no field. Those that
// are absent here are built.
var flagSettings = map[string]setting{
	"lock-file":                             {state: unsafe, why: "the file is not locked"},
	"exit-on-lock-contention":               {state: harmless, why: "the file is not locked"},
	"minimum-container-ttl-duration":        {state: harmless, why: noDeadKept},
	"maximum-dead-containers-per-container": {state: harmless, why: noDeadKept},
	"maximum-dead-containers":               {state: harmless, why: noDeadKept},
}

func neverVerify(k *kubeletv1beta1.KubeletConfiguration) bool {
	return k.ImagePullCredentialsVerificationPolicy == kubeletv1beta1.NeverVerify
}

// enforcesPodsOrLess is what is built: a limit around all pods, or none.
func enforcesPodsOrLess(k *kubeletv1beta1.KubeletConfiguration) bool {
	for _, level := range k.EnforceNodeAllocatable {
		if level != "pods" && level != "none" {
			return false
		}
	}
	return true
}

func watches(k *kubeletv1beta1.KubeletConfiguration) bool {
	return k.ConfigMapAndSecretChangeDetectionStrategy == kubeletv1beta1.WatchChangeDetectionStrategy
}

func hardOff(k *kubeletv1beta1.KubeletConfiguration) bool { return allOff(k.EvictionHard) }
func softOff(k *kubeletv1beta1.KubeletConfiguration) bool { return allOff(k.EvictionSoft) }

func allOff(thresholds map[string]string) bool {
	for _, text := range thresholds {
		if !thresholdOff(text) {
			return false
		}
	}
	return true
}
