import com.hivemq.embedded.EmbeddedExtension;
import com.hivemq.embedded.EmbeddedHiveMQ;
import com.hivemq.extension.sdk.api.ExtensionMain;
import com.hivemq.extension.sdk.api.auth.SimpleAuthenticator;
import com.hivemq.extension.sdk.api.auth.parameter.SimpleAuthInput;
import com.hivemq.extension.sdk.api.auth.parameter.SimpleAuthOutput;
import com.hivemq.extension.sdk.api.auth.parameter.TopicPermission;
import com.hivemq.extension.sdk.api.packets.auth.ModifiableDefaultPermissions;
import com.hivemq.extension.sdk.api.parameter.ExtensionStartInput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStartOutput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStopInput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStopOutput;
import com.hivemq.extension.sdk.api.services.Services;
import com.hivemq.extension.sdk.api.services.builder.Builders;
import java.io.Reader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;

/**
 * HiveMQ with users, for the tests: {@code java SecuredBroker.java HOME}.
 *
 * <p>In: HOME/conf with config.xml; HOME/users.properties, "user=password". Out: a broker until SIGTERM.
 * Guarantees: the topics that a user may use are those of docs/mqtt-security.md: the user "gateway" reads every
 * device, ChirpStack and Sparkplug, "blind" nothing, and any other is a device that has its own topics only.
 */
public final class SecuredBroker {

    public static void main(String[] arguments) throws Exception {
        Path home = Path.of(arguments[0]).toAbsolutePath();
        Properties users = new Properties();
        try (Reader reader = Files.newBufferedReader(home.resolve("users.properties"))) {
            users.load(reader);
        }
        EmbeddedExtension access = EmbeddedExtension.builder()
                .withId("access")
                .withName("Access")
                .withVersion("1")
                .withExtensionMain(new Access(users))
                .build();
        EmbeddedHiveMQ broker = EmbeddedHiveMQ.builder()
                .withConfigurationFolder(home.resolve("conf"))
                .withDataFolder(home.resolve("data"))
                .withExtensionsFolder(home.resolve("extensions"))
                .withEmbeddedExtension(access)
                .build();
        broker.start().get();
        Thread.currentThread().join();
    }

    private static final class Access implements ExtensionMain, SimpleAuthenticator {

        private final Properties users;

        private Access(Properties users) {
            this.users = users;
        }

        @Override
        public void extensionStart(ExtensionStartInput input, ExtensionStartOutput output) {
            Services.securityRegistry().setAuthenticatorProvider(client -> this);
        }

        @Override
        public void extensionStop(ExtensionStopInput input, ExtensionStopOutput output) {}

        @Override
        public void onConnect(SimpleAuthInput input, SimpleAuthOutput output) {
            String user = input.getConnectPacket().getUserName().orElse("");
            String password = input.getConnectPacket()
                    .getPassword()
                    .map(bytes -> StandardCharsets.UTF_8.decode(bytes).toString())
                    .orElse("");
            if (!password.equals(users.getProperty(user))) {
                output.failAuthentication();
                return;
            }
            ModifiableDefaultPermissions permissions = output.getDefaultPermissions();
            if (user.equals("gateway")) {
                allow(permissions, "devices/+/telemetry", TopicPermission.MqttActivity.SUBSCRIBE);
                allow(permissions, "devices/+/+/telemetry", TopicPermission.MqttActivity.SUBSCRIBE);
                allow(permissions, "devices/+/commands", TopicPermission.MqttActivity.PUBLISH);
                allow(permissions, "devices/+/commands/response", TopicPermission.MqttActivity.SUBSCRIBE);
                allow(permissions, "application/+/device/+/event/+", TopicPermission.MqttActivity.SUBSCRIBE);
                allow(permissions, "application/+/device/+/command/down", TopicPermission.MqttActivity.PUBLISH);
                allow(permissions, "spBv1.0/#", TopicPermission.MqttActivity.ALL);
            } else if (!user.equals("blind")) {
                allow(permissions, "devices/" + user + "/telemetry", TopicPermission.MqttActivity.PUBLISH);
                allow(permissions, "devices/" + user + "/commands", TopicPermission.MqttActivity.SUBSCRIBE);
                allow(permissions, "devices/" + user + "/commands/response", TopicPermission.MqttActivity.PUBLISH);
            }
            allow(permissions, "nothing", TopicPermission.MqttActivity.SUBSCRIBE); // no entry at all would allow all
            output.authenticateSuccessfully();
        }

        private static void allow(
                ModifiableDefaultPermissions permissions, String filter, TopicPermission.MqttActivity activity) {
            permissions.add(Builders.topicPermission()
                    .topicFilter(filter)
                    .type(TopicPermission.PermissionType.ALLOW)
                    .activity(activity)
                    .build());
        }
    }
}
